"""The waist: geometry, plan, method, record. Standard library and numpy; knows no other room."""
