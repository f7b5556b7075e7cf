"""What Springest's pages say, as pure functions: requests, answers, and what follows from them. No I/O."""
