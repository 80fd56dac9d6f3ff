package gateway

// RESTMethods are the public API's methods and paths, "GET /api/…", as the schema has them.
func RESTMethods() ([][2]string, error) {
	all, err := routes(dialects()...)
	out := make([][2]string, 0, len(all))
	for _, r := range all {
		out = append(out, [2]string{r.method, r.path})
	}
	return out, err
}
