"""The commands of ``yolov10-dysample``, one module each. Importing them must load neither torch nor Ultralytics."""
