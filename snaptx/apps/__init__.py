"""Application trees: a root of its own for one program, with generations, journal and audit of its own."""
