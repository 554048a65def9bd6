"""One module or package per backend; each satisfies `softgrad.protocol.Backend`, and none imports another."""
