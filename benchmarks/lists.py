"""Lists of models for `zoo.py`."""

# One architecture for each family of timm, as other tools were measured on.
TIMM = """
    resnet50 resnetv2_50 densenet121 efficientnet_b0 mobilenetv3_large_100 mobilenetv4_conv_small regnety_002
    regnetz_b16 dla34 hrnet_w18_small ghostnet_100 ghostnetv2_100 repvgg_a0 selecsls42b ese_vovnet19b_dw lcnet_050
    repvit_m0_9 starnet_s1 mobileone_s0 hgnetv2_b0 inception_v4 xception41 convmixer_768_32 rdnet_tiny convnext_atto
    convnextv2_atto beit_base_patch16_224 swiftformer_xs samvit_base_patch16_224 coatnet_nano_rw_224 resnest14d
    rexnet_100 mobilenetv4_hybrid_medium efficientvit_m0 ecaresnet26t visformer_tiny focalnet_tiny_srf halonet26t
    lambda_resnet26t botnet26t_256 mobilevitv2_050 nest_tiny mixer_s32_224 dla60_res2net levit_128s
    maxvit_rmlp_nano_rw_256 cait_xxs24_224 eva02_tiny_patch14_224 res2net50_26w_4s swinv2_tiny_window8_256
    vit_relpos_small_patch16_224 resmlp_12_224 efficientvit_b0 efficientformer_l1 edgenext_xx_small fastvit_t8
    cspresnet50 pit_ti_224 convit_tiny tiny_vit_5m_224 mambaout_femto sequencer2d_s nextvit_small dpn68 cs3darknet_s
    coat_tiny tnt_s_legacy_patch16_224 twins_svt_small gcvit_xxtiny hiera_tiny_224 shvit_s1 vit_tiny_patch16_224
    mobilevit_xxs volo_d1_224 xcit_nano_12_p16_224 poolformer_s12 nfnet_l0 skresnet18 tresnet_m
    swin_tiny_patch4_window7_224 gmlp_ti16_224 nf_regnet_b0 inception_next_tiny pvt_v2_b0 crossvit_tiny_240 davit_tiny
    caformer_s18 convformer_s18 deit3_small_patch16_224 vitamin_small_224
"""
# Those for which other tools that prune a file have been measured.
FILES = """
    torchvision:resnet18 torchvision:resnet50 torchvision:squeezenet1_1 torchvision:efficientnet_b0
    torchvision:googlenet torchvision:mobilenet_v2 torchvision:mobilenet_v3_small torchvision:regnet_y_400mf
    timm:ghostnet_100 timm:repvgg_a0 torchvision:convnext_tiny torchvision:densenet121
"""
TRANSFORMERS = """
    bert distilbert roberta deberta modernbert gpt2 opt llama mistral qwen2 qwen3 gemma phi mamba t5 bart whisper vit
    swin detr segformer clip wav2vec2
"""
# Beyond classification: segmentation, video.
VISION = "deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large r3d_18 s3d mvit_v1_b mvit_v2_s swin3d_t"

LISTS = {
    "files": FILES.split(),
    "families": [f"timm:{name}" for name in TIMM.split()],
    "transformers": TRANSFORMERS.split(),
    "vision": [f"torchvision:{name}" for name in VISION.split()],
}
