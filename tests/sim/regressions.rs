//! Seeds that failed once, each with what was wrong then; all rules on.
