"""The pages: each draws what `zig.app.facts` and `zig.app.scene` say, and decides nothing."""
