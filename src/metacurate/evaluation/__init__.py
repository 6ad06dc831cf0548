"""Zero-shot evaluation of CLIP models; needs the extra ``train``."""
