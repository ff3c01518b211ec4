"""What networks learn from images alone, before any label is used: the stage ``pretrain``."""
