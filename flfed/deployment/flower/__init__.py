"""Where flfed reaches into Flower: most private names of Flower 1.41 stand in this folder."""
