"""What `modelyard demo` does: `training` makes the models, `server` runs them, `calling` asks them, `play` is the whole
sequence, `claims` judges what was seen, `report` shows it."""
