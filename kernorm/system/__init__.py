"""The terminal, files, processes, the machine, Keras' backend."""
