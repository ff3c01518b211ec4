"""placeholder while the module is being written"""
from dataclasses import dataclass
@dataclass(frozen=True)
class Preprocess:
    resize: int | None = None
    normalize: bool = False
    clahe: bool = False
    crop: list | None = None
    pad: bool = False
    @property
    def changes_pixels(self): return False
    def apply(self, *a): raise RuntimeError
