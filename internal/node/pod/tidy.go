package pod

import (
	"slices"

	"lanyard.dev/internal/node/cri"
)

// keptRuns is how many runs of each container are kept: the newest, and the one before it for `logs --previous`.
const keptRuns = 2

// tidy finds what is of no more use: old runs, what was made and never started, and sandboxes that died or whose pod has
// ended.
func (s *situation) tidy(p *plan) {
	kept := map[string]bool{} // sandboxes that hold a run to keep
	seen := map[string]int{}
	for _, c := range s.held.Containers {
		seen[c.Name]++
		switch {
		case c.State == cri.Created:
			seen[c.Name]--
			p.remove = append(p.remove, c.ID)
		case seen[c.Name] > keptRuns && !alive(&c):
			p.remove = append(p.remove, c.ID)
		default:
			kept[c.SandboxID] = true
		}
	}
	for i, sandbox := range s.held.Sandboxes {
		if i == 0 && sandbox.Ready && !p.over || s.runsIn(sandbox.ID) {
			continue
		}
		if !s.stopped[sandbox.ID] {
			p.drop = append(p.drop, sandbox.ID)
		} else if !kept[sandbox.ID] {
			p.gone = append(p.gone, sandbox.ID)
		}
	}
}

func (s *situation) runsIn(sandboxID string) bool {
	return slices.ContainsFunc(s.running(), func(c cri.Container) bool { return c.SandboxID == sandboxID })
}
