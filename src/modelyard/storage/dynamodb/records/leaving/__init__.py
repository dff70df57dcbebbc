"""How records leave: by age, by subject, and what legal holds keep of them."""
