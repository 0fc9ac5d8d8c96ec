"""Networks that fit the weights their authors published: exact widths and details. One family per file."""
