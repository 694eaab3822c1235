"""Known models, one TOML file each; the fields are those of edgekit.checkpoint.known_models.KnownModel."""
