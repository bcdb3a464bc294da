"""Where clients come in: who may ask, how large, how slow; bytes to messages and back."""
