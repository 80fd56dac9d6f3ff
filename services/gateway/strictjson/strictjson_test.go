package strictjson_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	appsv1 "github.com/slipway-paas/slipway/gen/slipway/apps/v1"
	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
	"github.com/slipway-paas/slipway/services/gateway/strictjson"
)

func TestARequestIsReadAsSent(t *testing.T) {
	t.Parallel()
	const body = `{"subdomain":"my-app","image":"ghcr.io/a/b:1","tier":"buddo-starter","port":8080,
		"custom_domain":null,"env_vars":{"A":"1","B":""}} `
	var got deployv1.CreateDeploymentRequest
	if err := strictjson.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := &deployv1.CreateDeploymentRequest{
		Subdomain: "my-app", Image: "ghcr.io/a/b:1", Tier: "buddo-starter",
		Port: wrapperspb.Int32(8080), EnvVars: map[string]string{"A": "1", "B": ""},
	}
	if diff := cmp.Diff(want, &got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestAPlaceInTheLogIsANumber(t *testing.T) {
	t.Parallel()
	var got identityv1.CreateEventCredentialRequest
	if err := strictjson.Unmarshal([]byte(`{"name":"n","after_sequence":4294967296}`), &got); err != nil || got.GetAfterSequence() != 1<<32 {
		t.Errorf("read %v, %v", &got, err)
	}
	for _, bad := range []string{`"7"`, `-1`, `1.5`, `true`} {
		err := strictjson.Unmarshal([]byte(`{"after_sequence":`+bad+`}`), &identityv1.CreateEventCredentialRequest{})
		if err == nil || !strings.Contains(err.Error(), `"after_sequence" must be a whole number`) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestWhatIsWrongIsRefusedByName(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ body, says string }{
		"nothing":             {"", "empty"},
		"spaces":              {" \n", "empty"},
		"half":                {`{"image":"a`, "not valid JSON"},
		"half an object":      {`{"image":"a"`, "not valid JSON"},
		"half a map":          {`{"env_vars":{"A":"b"`, "not valid JSON"},
		"no JSON":             {`image=a`, "not valid JSON"},
		"a list":              {`[]`, "not a JSON object"},
		"a string":            {`"x"`, "not a JSON object"},
		"null":                {`null`, "not a JSON object"},
		"unknown":             {`{"imgae":"a"}`, `Unknown field "imgae"`},
		"camelCase":           {`{"customDomain":"a"}`, `Unknown field "customDomain"`},
		"twice":               {`{"image":"a","image":"b"}`, `"image" is there twice`},
		"more":                {`{"image":"a"}{}`, "after the JSON object"},
		"garbage after":       {`{"image":"a"} x`, "after the JSON object"},
		"port as text":        {`{"port":"8080"}`, `"port" must be a whole number`},
		"port as fraction":    {`{"port":3.5}`, `"port" must be a whole number`},
		"port as object":      {`{"port":{"value":1}}`, `"port" must be a whole number`},
		"image as number":     {`{"image":1}`, `"image" must be a string`},
		"image as object":     {`{"image":{}}`, `"image" must be a string`},
		"variables as list":   {`{"env_vars":["A=1"]}`, `"env_vars" must be an object`},
		"variable as number":  {`{"env_vars":{"A":1}}`, `"A" is none`},
		"variable as null":    {`{"env_vars":{"A":null}}`, `"A" is none`},
		"variable twice":      {`{"env_vars":{"A":"1","A":"2"}}`, `"A" twice`},
		"not UTF-8":           {"{\"image\":\"\xff\"}", "UTF-8"},
		"a comma too much":    {`{"image":"a",}`, "not valid JSON"},
		"a very long unknown": {`{"` + strings.Repeat("x", 10_000) + `":1}`, "…"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := strictjson.Unmarshal([]byte(c.body), &deployv1.CreateDeploymentRequest{})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something with %q", err, c.says)
			}
			if err != nil && len(err.Error()) > 400 {
				t.Errorf("the answer has %d bytes: what was sent comes back in full", len(err.Error()))
			}
		})
	}
}

func TestAPortOutOfAnyRangeReachesWhoChecksRanges(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]int32{
		`{"port":70000}`: 70000, `{"port":-1}`: -1,
		`{"port":99999999999}`:              math.MaxInt32,
		`{"port":-99999999999999999999999}`: math.MinInt32,
	} {
		var got deployv1.CreateDeploymentRequest
		if err := strictjson.Unmarshal([]byte(body), &got); err != nil || got.GetPort().GetValue() != want {
			t.Errorf("%s gave %v, %v, want %d", body, got.GetPort(), err, want)
		}
	}
}

func TestEveryFieldIsWrittenAndAbsentOnesAreNull(t *testing.T) {
	t.Parallel()
	out, err := strictjson.Marshaler{}.Marshal(&deployv1.GetDeploymentResponse{Deployment: &deployv1.Deployment{Id: "x", MemoryLimitMb: 256}})
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Deployment map[string]any }
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"id": "x", "app_id": "", "deploy_tier_id": "", "container_name": "", "container_image": "", "host_server": nil,
		"subdomain": "", "custom_domain": nil, "status": "", "status_reason": nil, "health_status": "", "last_health_check": nil,
		"billing_status": "", "memory_limit_mb": 256.0, "cpu_limit_millicores": 0.0, "inserted_at": nil, "deployed_at": nil, "stopped_at": nil,
	}
	if diff := cmp.Diff(want, got.Deployment); diff != "" {
		t.Error(diff)
	}
}

func TestASequenceIsReadAsANumber(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]uint64{`{"after_sequence":0}`: 0, `{"after_sequence":41}`: 41, `{"after_sequence":18446744073709551615}`: math.MaxUint64} {
		in := &webhooksv1.ReplayWebhookRequest{}
		if err := strictjson.Unmarshal([]byte(body), in); err != nil || in.GetAfterSequence() != want {
			t.Errorf("%s is read as %d, %v", body, in.GetAfterSequence(), err)
		}
	}
	for _, bad := range []string{`-1`, `"41"`, `1.5`, `1e3`, `18446744073709551616`, `true`, `[]`, `{}`} {
		if err := strictjson.Unmarshal([]byte(`{"after_sequence":`+bad+`}`), &webhooksv1.ReplayWebhookRequest{}); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// protojson writes 64-bit integers as strings, which the seeds do not.
func TestEveryNumberIsWrittenAsOne(t *testing.T) {
	t.Parallel()
	for want, m := range map[string]proto.Message{
		`{"replayed":2,"last_sequence":18446744073709551615}`: &webhooksv1.ReplayWebhookResponse{Replayed: 2, LastSequence: math.MaxUint64},
		`{"deliveries":[{"id":"\"12\"","event_type":"","event_sequence":41,"status":"","attempts":0,"last_status":0,"last_error":"","created_at":"1970-01-01T00:00:07Z","last_attempt_at":null,"next_attempt_at":null},` +
			`{"id":"34","event_type":"","event_sequence":0,"status":"","attempts":0,"last_status":0,"last_error":"","created_at":null,"last_attempt_at":null,"next_attempt_at":null}]}`: &webhooksv1.ListWebhookDeliveriesResponse{
			Deliveries: []*webhooksv1.WebhookDelivery{{Id: `"12"`, EventSequence: 41, CreatedAt: &timestamppb.Timestamp{Seconds: 7}}, {Id: "34"}},
		},
		`{"deliveries":[]}`: &webhooksv1.ListWebhookDeliveriesResponse{},
		`{"shown":null,"webhook_id":"5","org_id":"","body":"","first_attempt_at":null,"due_at":null}`: &webhooksv1.Delivery{WebhookId: "5"},
	} {
		if out, err := (strictjson.Marshaler{}).Marshal(m); err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%T is written as\n%s\nwant\n%s\n%v", m, out, want, err)
		}
	}
}

func TestCountsByNameAreReadAndListsAreWrittenBare(t *testing.T) {
	t.Parallel()
	in := &appsv1.ScaleProcessesRequest{}
	if err := strictjson.Unmarshal([]byte(`{"processes":{"web":2,"worker":99999999999}}`), in); err != nil || in.Processes["web"] != 2 || in.Processes["worker"] != math.MaxInt32 {
		t.Errorf("read as %v, %v", in, err)
	}
	for body, says := range map[string]string{
		`{"processes":{"web":"2"}}`:       `"processes.web" must be a whole number`,
		`{"processes":{"web":1.5}}`:       `"processes.web" must be a whole number`,
		`{"processes":{"web":1,"web":2}}`: `"web" twice`,
		`{"processes":3}`:                 "whole numbers",
	} {
		if err := strictjson.Unmarshal([]byte(body), &appsv1.ScaleProcessesRequest{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", body, err)
		}
	}
	text, err := strictjson.Marshaler{}.Marshal([]*appsv1.Process{{Type: "web", Count: 2}, {Type: "worker"}})
	if want := `[{"type":"web","command":"","count":2,"status":""},{"type":"worker","command":"","count":0,"status":""}]` + "\n"; err != nil || string(text) != want {
		t.Errorf("written as %s, %v", text, err)
	}
	if text, err := (strictjson.Marshaler{}).Marshal([]*appsv1.Process(nil)); err != nil || string(text) != "[]\n" {
		t.Errorf("none are written as %s, %v", text, err)
	}
}

func FuzzUnmarshalNeverPanics(f *testing.F) {
	f.Add([]byte(`{"port":1,"env_vars":{"A":"b"},"custom_domain":null}`))
	f.Add([]byte(`{"env_vars":{"":{}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var m deployv1.CreateDeploymentRequest
		if err := strictjson.Unmarshal(body, &m); err == nil && !json.Valid(body) {
			t.Errorf("%q is no JSON and was accepted", body)
		}
	})
}
