package chaos

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/slipway-paas/slipway/e2e/podman"
)

// world is what can be seen from outside the log.
type world struct {
	// containers are those of the platform's nodes.
	containers []podman.Container
	// pages are the edge's answers, by subdomain.
	pages map[string]page
	// rows are the statuses that the API lists, by deployment.
	rows map[string]string
}

// page is a status, and the secret that an app tells.
type page struct {
	status int
	secret string
}

// Labels of the platform's containers.
const (
	labelDeployment = "slipway.deployment"
	labelRelease    = "slipway.release"
)

// verify holds the log and the world against what was promised. Those in doubt say
// what may still come right by waiting; those for ever never will.
func verify(commands []command, h *history, w world, untouched map[string]string) (doubt, forever []string) {
	forever = append(forever, h.strange...)
	forever = append(forever, doubled(h)...)
	lost, wrong := promises(commands, h)
	forever = append(forever, wrong...)
	doubt = append(doubt, lost...)
	doubt = append(doubt, unfinished(h)...)
	doubt = append(doubt, containersWanted(h, w)...)
	doubt = append(doubt, pagesWanted(h, w)...)
	doubt = append(doubt, rowsWanted(h, w)...)
	doubt = append(doubt, claimsWanted(h)...)
	forever = append(forever, moved(w, untouched)...)
	return doubt, forever
}

// promises finds acknowledged commands without their event.
func promises(commands []command, h *history) (lost, wrong []string) {
	// An acknowledged stop or destroy may be that of an earlier one without an answer.
	earlier := map[string]bool{}
	for _, c := range commands {
		written := h.requests[c.trace]
		switch {
		case len(written) > 1:
			wrong = append(wrong, fmt.Sprintf("one command is %d events %v: %s", len(written), written, c))
		case len(written) == 1 && written[0] != c.kind:
			wrong = append(wrong, fmt.Sprintf("the command became a %s: %s", written[0], c))
		case len(written) == 1 && c.outcome == refused:
			wrong = append(wrong, "a refused command is in the log: "+c.String())
		case len(written) == 1 && c.outcome == unknown:
			earlier[c.kind+c.deployment] = true
		case len(written) == 0 && c.outcome == acknowledged && !earlier[c.kind+c.deployment]:
			lost = append(lost, "an acknowledged command is not in the log: "+c.String())
		}
		if d := h.deployments[c.deployment]; c.outcome == acknowledged && d == nil {
			lost = append(lost, "an acknowledged deployment is not in the log: "+c.String())
		}
	}
	return lost, wrong
}

// doubled finds events that somebody would be charged for twice, or told twice.
func doubled(h *history) []string {
	var found []string
	for key, sequences := range h.ids {
		if len(sequences) > 1 {
			found = append(found, fmt.Sprintf("the event %s is there %d times: %v", key, len(sequences), sequences))
		}
	}
	for _, d := range h.order {
		for _, once := range []string{"DeploymentRequested", "DestroyRequested", "DeploymentDestroyed"} {
			if d.types[once] > 1 {
				found = append(found, fmt.Sprintf("%s has %d %s", d, d.types[once], once))
			}
		}
		if d.types["DeploymentRequested"] == 0 {
			found = append(found, fmt.Sprintf("%s has events but was never asked for", d))
		}
		if d.types["DeploymentStopped"] > d.types["StopRequested"] {
			found = append(found, fmt.Sprintf("%s was stopped %d times and asked to %d times", d, d.types["DeploymentStopped"], d.types["StopRequested"]))
		}
		for release, n := range d.ends {
			if n > 1 {
				found = append(found, fmt.Sprintf("the release %s of %s ended %d times", release, d, n))
			}
		}
		if n := d.types["ReleaseFailed"]; n > 0 {
			found = append(found, fmt.Sprintf("%s: %d releases of an app without fault failed", d, n))
		}
	}
	slices.Sort(found)
	return found
}

// unfinished finds what was asked for and has not ended.
func unfinished(h *history) []string {
	var found []string
	for _, d := range h.order {
		if d.open != "" {
			found = append(found, fmt.Sprintf("a %s of %s has not ended", d.open, d))
		}
	}
	return found
}

func containersWanted(h *history, w world) []string {
	var found []string
	have := map[string][]podman.Container{}
	for _, c := range w.containers {
		id := c.Labels[labelDeployment]
		have[id] = append(have[id], c)
		if h.deployments[id] == nil {
			found = append(found, fmt.Sprintf("the container %v is of no deployment in the log", c.Names))
		}
	}
	for _, d := range h.order {
		list := have[d.id]
		switch {
		case d.status != statusRunning && len(list) > 0:
			found = append(found, fmt.Sprintf("%s has %d containers: %s", d, len(list), describe(list)))
		case d.status != statusRunning:
		case len(list) != 1 || list[0].State != "running" || list[0].Labels[labelRelease] != d.live:
			found = append(found, fmt.Sprintf("%s, live release %s, has these containers: %s", d, d.live, describe(list)))
		}
	}
	return found
}

func describe(list []podman.Container) string {
	text := ""
	for _, c := range list {
		text += fmt.Sprintf("[%v %s release %s attempt %s]", c.Names, c.State, c.Labels[labelRelease], c.Labels["slipway.attempt"])
	}
	return cmp.Or(text, "none")
}

// pagesWanted finds names where the edge does not say what it must.
func pagesWanted(h *history, w world) []string {
	var found []string
	for _, name := range h.names() {
		want, d := page{status: 404}, h.holder(name)
		switch {
		case d != nil && d.status == statusRunning:
			want = page{200, d.secret}
		case d != nil:
			want.status = 503
		}
		if got := w.pages[name]; got != want {
			found = append(found, fmt.Sprintf("%s answers %v, want %v (%v)", name, got, want, d))
		}
	}
	return found
}

// rowsWanted finds deployments that the API does not tell as the log does.
func rowsWanted(h *history, w world) []string {
	var found []string
	for _, d := range h.order {
		if got, listed := w.rows[d.id]; got != d.status && (listed || d.status != statusDestroyed) {
			found = append(found, fmt.Sprintf("the API says that %s is %q", d, got))
		}
	}
	for id := range w.rows {
		if h.deployments[id] == nil {
			found = append(found, fmt.Sprintf("the API lists %s, which is not in the log", id))
		}
	}
	slices.Sort(found)
	return found
}

// claimsWanted finds names that are held by nobody who lives, or by nobody who must.
func claimsWanted(h *history) []string {
	var found []string
	for name, holder := range h.claims {
		d := h.holder(name)
		if d == nil || "deployment/"+d.id != holder {
			found = append(found, fmt.Sprintf("%s holds the name %s, which is that of %v", holder, name, d))
		}
	}
	for _, d := range h.order {
		if d.status != statusDestroyed && h.claims[d.subdomain] != "deployment/"+d.id {
			found = append(found, fmt.Sprintf("%s does not hold its name", d))
		}
	}
	slices.Sort(found)
	return found
}

// moved finds apps that nobody touched and that have another container all the same.
func moved(w world, untouched map[string]string) []string {
	var found []string
	for _, c := range w.containers {
		if was, ok := untouched[c.Labels[labelDeployment]]; ok && was != c.ID {
			found = append(found, fmt.Sprintf("the app %s, which nobody touched, has another container: %v", c.Labels[labelDeployment], c.Names))
		}
	}
	return found
}

func (d *deployed) String() string {
	if d == nil {
		return "nobody"
	}
	return fmt.Sprintf("%s (%s, %s)", d.id, d.subdomain, d.status)
}
