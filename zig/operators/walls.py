"""Operators that no unit passes, with the reason: a table of families."""

from __future__ import annotations

from zig.flow.row import Operator

_STANDARD: dict[str, str] = {
    "selects by values": "NonZero NonMaxSuppression Unique",
    "draws random numbers, which fall differently for a smaller tensor":
        "Bernoulli Multinomial RandomNormalLike RandomUniformLike",
    "runs a graph of its own": "SequenceMap",
    "works on text": "StringConcat StringNormalizer StringSplit RegexFullMatch TfIdfVectorizer",
    "decodes a file": "ImageDecoder",
}  # fmt: skip
_ML = """ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder
    LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble
    TreeEnsembleClassifier TreeEnsembleRegressor ZipMap"""
_NCHWC = "AveragePool Conv GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample"
_FAMILIES: dict[str, dict[str, str]] = {
    "": _STANDARD,
    "ai.onnx.ml.": {"belongs to a classical model, whose parameters are attributes and no layers": _ML},
    "ai.onnx.preview.": {"runs a graph of its own on its scores": "FlexAttention"},
    "ai.onnx.preview.training.": {"trains the model inside the graph": "Adagrad Adam Gradient Momentum"},
    "com.microsoft.nchwc.": {
        "holds its weights in blocks for one kind of processor (save at onnxruntime's level 'extended' instead)": _NCHWC
    },
    "com.microsoft.": {
        "chooses its experts at run time": "MoE QMoE",
        "keeps keys and values from earlier steps": "DecoderMaskedMultiHeadAttention PagedAttention SparseAttention",
    },
}
OPERATORS: dict[str, Operator] = {
    f"{domain}{name}": Operator(wall=f"{reason}, so all that reaches it must stay")
    for domain, families in _FAMILIES.items()
    for reason, names in families.items()
    for name in names.split()
}
