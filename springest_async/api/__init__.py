"""The rules of Springest's help pages as pure functions: requests, answers, and what to do next. No I/O."""
