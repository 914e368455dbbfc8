"""The parts of benches/finding, and what they share."""
