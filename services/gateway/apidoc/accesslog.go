package apidoc

// accessLogOperation is the access log of an app, which comes in other forms than JSON.
func accessLogOperation() object {
	str := object{"type": "string"}
	query := func(name, description string, schema object) object {
		return object{"name": name, "in": "query", "description": description, "schema": schema}
	}
	source := query("source", "router: the requests as the edges served them.", object{"type": "string", "enum": []any{"router"}})
	source["required"] = true
	return object{
		"tags":        []any{"IngressService"},
		"operationId": "IngressService_FollowAccessLog",
		"description": "The last entries of the app's access log, oldest first, and then, when asked to, each new one. As lines of text; as lines of JSON for Accept: application/x-ndjson; as server-sent events (event: request) for Accept: text/event-stream.",
		"parameters": []any{
			object{"name": "name", "in": "path", "required": true, "description": "Subdomain or id.", "schema": str},
			source,
			query("lines", "How many entries to begin with.", object{"type": "integer", "minimum": 1, "maximum": 10000, "default": 100}),
			query("follow", "Go on as requests come.", object{"type": "boolean", "default": false}),
			query("format", "text or json, whatever Accept says.", object{"type": "string", "enum": []any{"text", "json"}}),
		},
		"responses": object{
			"200": object{"description": "OK", "content": object{
				"text/plain": object{"schema": str}, "application/x-ndjson": object{"schema": ref("FollowAccessLogResponse")},
				"text/event-stream": object{"schema": ref("FollowAccessLogResponse")},
			}},
			"400": problemRef(), "401": problemRef(), "403": problemRef(), "404": problemRef(), "422": problemRef(), "429": problemRef(), "503": problemRef(),
		},
	}
}
