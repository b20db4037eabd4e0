"""A job under way: the driver, its workers on Ray Data, and what people see of it."""
