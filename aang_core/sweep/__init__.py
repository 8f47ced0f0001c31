"""Many runs: what a specification asks for, carried out beside each other, and the configuration that dev chose."""
