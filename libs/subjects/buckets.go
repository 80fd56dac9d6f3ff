package subjects

// OfKey is the subject that NATS keeps the keys of a bucket under: one key, or those
// that a pattern matches.
func OfKey(bucket, key string) string { return "$KV." + bucket + "." + key }
