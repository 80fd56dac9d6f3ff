package projection

// IsAway reports whether err says that the database cannot be reached or is shutting
// down, rather than that it refused what was asked.
func IsAway(err error) bool { return isAway(err) }
