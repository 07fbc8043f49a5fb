"""What records of a benchmark call the candidates and the parts of a measurement. Knows the standard library only."""

__all__ = ["ADAPTED", "OURS", "PARTS", "PUBLISHED", "STOCK"]

STOCK, OURS, PUBLISHED = "stock", "dysample", "published"
#: The published code stops in channels_last; this is what it would cost if it did not.
ADAPTED = "published, made to accept channels_last"
PARTS = ("model", "operator", "train")
