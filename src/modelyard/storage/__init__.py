"""Where are things kept? One adapter per port and per kind of store; `stores.Stores` is a complete set of them."""
