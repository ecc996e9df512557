"""One phase of load: everything that sends, and what came of it."""
