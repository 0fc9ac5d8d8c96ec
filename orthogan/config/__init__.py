"""The configuration: its sections, how YAML is read, and what its messages say."""
