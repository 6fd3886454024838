package cli

import (
	"fmt"
	"strings"
	"time"
)

// inWords says a duration in its two largest units, as in "1 hour 5 minutes".
func inWords(d time.Duration) string {
	units := []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}}
	d = d.Abs().Truncate(time.Second)
	var parts []string
	for _, unit := range units {
		count := d / unit.size
		if count == 0 {
			if len(parts) > 0 {
				break
			}
			continue
		}
		parts = append(parts, counted(int64(count), unit.name))
		if d -= count * unit.size; len(parts) == 2 {
			break
		}
	}
	if len(parts) == 0 {
		return "less than a second"
	}
	return strings.Join(parts, " ")
}

func counted(count int64, unit string) string {
	if count == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", count, unit)
}
