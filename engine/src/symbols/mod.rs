//! What an address in a guest means: symbols, source lines, unwinding, disassembly.
