package backup

// For tests of what only happens in a short moment.
var (
	ReadKeys = readKeys
	LateKeys = lateKeys
	PutKeys  = putKeys
	Upload   = upload
)
