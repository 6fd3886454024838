package controller_test

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lanyard.dev/internal/controller"
)

// TestChange changes an object that another client writes at the same moment.
func TestChange(t *testing.T) {
	t.Parallel()
	conflict := apierrors.NewConflict(corev1.Resource("configmaps"), "c", errors.New("newer"))
	for name, test := range map[string]struct {
		conflicts, reads, writes int
		unchanged, conflicted    bool
	}{
		"at once":       {reads: 1, writes: 1},
		"after others":  {conflicts: 2, reads: 3, writes: 3},
		"never":         {conflicts: 100, reads: 5, writes: 5, conflicted: true},
		"nothing to do": {unchanged: true, reads: 1},
	} {
		reads, writes := 0, 0
		get := func(context.Context, string, metav1.GetOptions) (*corev1.ConfigMap, error) {
			reads++
			return &corev1.ConfigMap{}, nil
		}
		update := func(_ context.Context, c *corev1.ConfigMap, _ metav1.UpdateOptions) (*corev1.ConfigMap, error) {
			if writes++; writes <= test.conflicts {
				return nil, conflict
			}
			return c, nil
		}
		stored, err := controller.Change(t.Context(), "c", get, update, func(c *corev1.ConfigMap) bool {
			c.Data = map[string]string{"a": "b"}
			return !test.unchanged
		})
		if reads != test.reads || writes != test.writes || apierrors.IsConflict(err) != test.conflicted || err == nil && stored == nil {
			t.Errorf("%s: %d reads, %d writes, %v, %v", name, reads, writes, stored, err)
		}
	}
}
