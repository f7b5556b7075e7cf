"""What is told of migrations: for machines, as reports, and as proof. It prints nothing."""
