"""The nets and their layers, norms, penalties and weights."""
