"""What people see and other tools read: figures, overlays, COCO results, galleries."""
