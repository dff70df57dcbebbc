"""How resources are asked for and answered: strict requests, uploads, pages, entity tags, the forms of answers."""
