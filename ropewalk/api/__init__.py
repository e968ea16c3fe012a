"""The verbs in Python: the only place where all rooms meet. Heavy rooms are imported inside the verb that needs them."""
