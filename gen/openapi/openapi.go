// Package openapi carries the API description that is generated beside it.
package openapi

import _ "embed"

// YAML is the OpenAPI 3 description of the public API.
//
//go:embed openapi.yaml
var YAML []byte
