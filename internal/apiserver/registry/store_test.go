package registry_test

import (
	"context"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/apiserver/registry/storagetest"
)

// kind is a resource of Secrets with a strategy that marks what it has done.
func kind(typer runtime.ObjectTyper) registry.Kind[*corev1.Secret] {
	return registry.Kind[*corev1.Secret]{
		Resource: corev1.Resource("secrets"), Singular: "secret", ShortNames: []string{"sec"}, Categories: []string{"all"},
		New:     func() *corev1.Secret { return &corev1.Secret{} },
		NewList: func() runtime.Object { return &corev1.SecretList{} },
		Strategy: registry.Strategy[*corev1.Secret]{
			ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, Namespaced: true,
			OnCreate: func(_ context.Context, s *corev1.Secret) { s.Labels = map[string]string{"by": "create"} },
			OnUpdate: func(_ context.Context, s, old *corev1.Secret) {
				s.Type, s.Labels = old.Type, map[string]string{"by": "update"}
			},
			Check: func(s *corev1.Secret) field.ErrorList {
				return faultIf(s.Name == "bad", "create")
			},
			CheckUpdate: func(s, old *corev1.Secret) field.ErrorList {
				return faultIf(s.Annotations["bad"] != old.Annotations["bad"], "update")
			},
			Warn:  func(_ context.Context, s *corev1.Secret) []string { return []string{"mind " + s.Name} },
			Reset: registry.ResetFields("v1", "type"),
		},
		Columns: []metav1.TableColumnDefinition{{Name: "Name"}},
		Row:     func(s *corev1.Secret, _ time.Time) []any { return []any{s.Name} },
		Fields: func(s *corev1.Secret) fields.Set {
			return fields.Set{"metadata.name": s.Name, "type": string(s.Type)}
		},
		Indexed: []string{"type"},
	}
}

func faultIf(bad bool, detail string) field.ErrorList {
	if !bad {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), nil, detail)}
}

// cached adds a watch cache to the storage, as the server does. The indexes are part of it.
type cached struct{ *storagetest.Storage }

func (c cached) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	options, err := c.Storage.GetRESTOptions(resource, example)
	options.Decorator = genericregistry.StorageWithCacher()
	return options, err
}

func newStore(t *testing.T) *registry.Store {
	t.Helper()
	base := storagetest.Start(t)
	store, err := registry.NewStore(kind(base.Scheme), cached{base})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Destroy)
	storagetest.AwaitReady(t, store)
	return store
}

func create(t *testing.T, store rest.Creater, name, secretType string) error {
	t.Helper()
	_, err := store.Create(storagetest.In(t, "ns"), &corev1.Secret{ObjectMeta: storagetest.Meta("ns", name), Type: corev1.SecretType(secretType)},
		rest.ValidateAllObjectFunc, &metav1.CreateOptions{})
	return err
}

func update(t *testing.T, to rest.Updater, name string, mutate func(*corev1.Secret)) (*corev1.Secret, error) {
	t.Helper()
	info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		s := old.DeepCopyObject().(*corev1.Secret)
		mutate(s)
		return s, nil
	})
	out, _, err := to.Update(storagetest.In(t, "ns"), name, info, rest.ValidateAllObjectFunc, rest.ValidateAllObjectUpdateFunc, true, &metav1.UpdateOptions{})
	s, _ := out.(*corev1.Secret)
	return s, err
}

func TestStoreUsesItsStrategy(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	if err := create(t, store, "bad", ""); !apierrors.IsInvalid(err) {
		t.Errorf("create: %v", err)
	}
	if err := create(t, store, "s", "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := update(t, store, "s", func(s *corev1.Secret) { s.Annotations = map[string]string{"bad": "x"} }); !apierrors.IsInvalid(err) {
		t.Errorf("update: %v", err)
	}
	got, err := update(t, store, "s", func(s *corev1.Secret) { s.Type = "b" })
	if err != nil || got.Type != "a" || got.Labels["by"] != "update" {
		t.Errorf("got %+v, %v", got, err)
	}
	if !slices.Equal(store.ShortNames(), []string{"sec"}) || !slices.Equal(store.Categories(), []string{"all"}) || store.GetSingularName() != "secret" {
		t.Errorf("names %q %q %q", store.ShortNames(), store.Categories(), store.GetSingularName())
	}
	table, err := store.ConvertToTable(t.Context(), got, nil)
	if err != nil || table.Rows[0].Cells[0] != "s" {
		t.Errorf("table %+v, %v", table, err)
	}
}

func TestSubresourceOnlyUpdates(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	if err := create(t, store, "s", "a"); err != nil {
		t.Fatal(err)
	}
	strategy := store.UpdateStrategy.(registry.Strategy[*corev1.Secret])
	strategy.OnUpdate = func(_ context.Context, s, old *corev1.Secret) { s.Data = old.Data }
	strategy.Reset = registry.ResetFields("v1", "data")
	subresource := registry.NewSubresource(store, strategy)
	got, err := update(t, subresource, "s", func(s *corev1.Secret) { s.Type, s.Data = "b", map[string][]byte{"k": nil} })
	if err != nil || got.Type != "b" || len(got.Data) > 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	if stored, err := subresource.Get(storagetest.In(t, "ns"), "s", &metav1.GetOptions{}); err != nil || stored.(*corev1.Secret).Type != "b" {
		t.Errorf("stored %+v, %v", stored, err)
	}
	if _, err := update(t, subresource, "none", func(*corev1.Secret) {}); !apierrors.IsNotFound(err) {
		t.Errorf("a subresource creates its object: %v", err)
	}
	if !subresource.GetResetFields()["v1"].Has(fieldpath.MakePathOrDie("data")) || !store.GetResetFields()["v1"].Has(fieldpath.MakePathOrDie("type")) {
		t.Errorf("reset fields of the subresource %v, of the store %v", subresource.GetResetFields(), store.GetResetFields())
	}
	subresource.Destroy()
	if _, err := update(t, store, "s", func(*corev1.Secret) {}); err != nil {
		t.Errorf("the end of a subresource ends its store: %v", err)
	}
}

func TestWithStrategyDoesNotChangeTheStore(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	strategy := store.CreateStrategy.(registry.Strategy[*corev1.Secret])
	strategy.OnCreate = func(_ context.Context, s *corev1.Secret) { s.Labels = map[string]string{"by": "other"} }
	other := registry.WithStrategy(store, strategy)
	for name, through := range map[string]*registry.Store{"create": store, "other": other} {
		if err := create(t, through, name, "a"); err != nil {
			t.Fatal(err)
		}
		stored, err := store.Get(storagetest.In(t, "ns"), name, &metav1.GetOptions{})
		if err != nil || stored.(*corev1.Secret).Labels["by"] != name {
			t.Errorf("%s: got %+v, %v", name, stored, err)
		}
	}
	if !slices.Equal(other.ShortNames(), store.ShortNames()) {
		t.Errorf("short names %q", other.ShortNames())
	}
}

func TestSelectors(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	for name, secretType := range map[string]string{"one": "a", "two": "a", "three": "b"} {
		if err := create(t, store, name, secretType); err != nil {
			t.Fatal(err)
		}
	}
	for selector, want := range map[string][]string{
		"type=a": {"one", "two"}, "type=b": {"three"}, "type=c": nil, "type=a,metadata.name=two": {"two"}, "type!=a": {"three"},
	} {
		list, err := store.List(storagetest.In(t, "ns"), &internalversion.ListOptions{
			FieldSelector: fields.ParseSelectorOrDie(selector), LabelSelector: labels.SelectorFromSet(labels.Set{"by": "create"}),
		})
		if err != nil {
			t.Fatalf("%s: %v", selector, err)
		}
		var got []string
		for _, s := range list.(*corev1.SecretList).Items {
			got = append(got, s.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", selector, got, want)
		}
	}
}

// TestEmptyStrategy checks that a strategy without functions allows everything and gives no warnings.
func TestEmptyStrategy(t *testing.T) {
	t.Parallel()
	s := registry.Strategy[*corev1.Secret]{}
	ctx, obj := t.Context(), &corev1.Secret{}
	s.PrepareForCreate(ctx, obj)
	s.PrepareForUpdate(ctx, obj, obj)
	s.Canonicalize(obj)
	if faults := append(s.Validate(ctx, obj), s.ValidateUpdate(ctx, obj, obj)...); len(faults) > 0 {
		t.Errorf("faults %v", faults)
	}
	if warnings := append(s.WarningsOnCreate(ctx, obj), s.WarningsOnUpdate(ctx, obj, obj)...); len(warnings) > 0 {
		t.Errorf("warnings %v", warnings)
	}
	if s.AllowCreateOnUpdate(ctx) || s.NamespaceScoped() || !s.AllowUnconditionalUpdate(ctx) {
		t.Errorf("defaults: create on update %v, namespaced %v, unconditional %v", s.AllowCreateOnUpdate(ctx), s.NamespaceScoped(), s.AllowUnconditionalUpdate(ctx))
	}
}
