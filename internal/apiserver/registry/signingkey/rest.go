package signingkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
	"k8s.io/utils/clock"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/apiserver/outage"
	"lanyard.dev/internal/apiserver/registry"
	"lanyard.dev/internal/signingkey"
	"lanyard.dev/internal/signingkey/rotation"
)

// Keyring is the keys that the authority keeps. *keyring.Keyring implements it.
type Keyring interface {
	// Settle returns once Ring has everything that was written before the call.
	Settle(context.Context) error
	// Ring returns the keys in force, and the revision of the storage that they have.
	Ring() (rotation.Ring, uint64)
	// Newer returns once Ring has a later revision, or with the cause of the end of the context.
	Newer(ctx context.Context, revision uint64) error
	Policy() rotation.Policy
	// Change stores what change returns for the stored keys. It may call change several times.
	Change(ctx context.Context, change func(rotation.Ring) (rotation.Ring, error)) (rotation.Ring, error)
}

// Config is what the storage depends on.
type Config struct {
	// Keyring is nil if the keys are in files. Files has them then.
	Keyring Keyring
	Files   signingkey.KeySource
	Tokens  rotation.Tokens
	Clock   clock.PassiveClock
}

// REST serves signing keys.
type REST struct {
	registry.Description
	Config
}

var (
	_ rest.Storage         = &REST{}
	_ rest.Getter          = &REST{}
	_ rest.Lister          = &REST{}
	_ rest.Watcher         = &REST{}
	_ rest.Creater         = &REST{}
	_ rest.GracefulDeleter = &REST{}
)

// NewREST returns the storage of signing keys.
func NewREST(d registry.Description, c Config) *REST { return &REST{d, c} }

// New implements rest.Storage.
func (*REST) New() runtime.Object { return &identity.SigningKey{} }

// NewList implements rest.Lister.
func (*REST) NewList() runtime.Object { return &identity.SigningKeyList{} }

// Destroy implements rest.Storage.
func (*REST) Destroy() {}

// keys returns the objects of all keys, sorted by name, and their revision.
func (r *REST) keys() ([]*identity.SigningKey, uint64) {
	var all []*identity.SigningKey
	if r.Keyring == nil {
		return r.fileKeys(), 1
	}
	ring, revision := r.Keyring.Ring()
	for _, key := range ring.Accepted() {
		all = append(all, object(&key, r.Keyring.Policy(), revision, r.live(key.ID)))
	}
	sortByName(all)
	return all, revision
}

// fileKeys returns the objects of keys in files. It is not known when they were made or used.
func (r *REST) fileKeys() (all []*identity.SigningKey) {
	set := r.Files.Current()
	for _, key := range set.Keys() {
		state := identity.KeyVerifying
		if signer := set.Signer(key.Algorithm()); signer != nil && signer.ID() == key.ID() {
			state = identity.KeySigning
		}
		all = append(all, &identity.SigningKey{
			ObjectMeta: metav1.ObjectMeta{Name: key.ID(), UID: uidOf(key.ID()), ResourceVersion: versionOf(1)},
			Spec:       identity.SigningKeySpec{Algorithm: string(key.Algorithm())},
			Status:     identity.SigningKeyStatus{State: state, LiveTokens: r.live(key.ID())},
		})
	}
	sortByName(all)
	return all
}

func sortByName(keys []*identity.SigningKey) {
	slices.SortFunc(keys, func(a, b *identity.SigningKey) int { return strings.Compare(a.Name, b.Name) })
}

func (r *REST) live(kid string) *int64 {
	n, err := r.Tokens.LiveTokens(kid)
	if err != nil {
		return nil
	}
	live := int64(n)
	return &live
}

// settle waits until the keys are as new as a resource version requires: any for "0", and the latest ones for every other.
func (r *REST) settle(ctx context.Context, version string) error {
	if r.Keyring == nil || version == "0" {
		return nil
	}
	return outage.New(r.Keyring.Settle(ctx))
}

// find returns the key with a name.
func (r *REST) find(name string) (*identity.SigningKey, error) {
	all, _ := r.keys()
	for _, key := range all {
		if key.Name == name {
			return key, nil
		}
	}
	return nil, apierrors.NewNotFound(resource, name)
}

// Get implements rest.Getter.
func (r *REST) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	version := ""
	if options != nil {
		version = options.ResourceVersion
	}
	if err := r.settle(ctx, version); err != nil {
		return nil, err
	}
	return r.find(name)
}

// List implements rest.Lister. There are at most rotation.MaxAccepted keys, so a list has one page.
func (r *REST) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	if options == nil {
		options = &internalversion.ListOptions{}
	}
	if err := r.settle(ctx, options.ResourceVersion); err != nil {
		return nil, err
	}
	all, revision := r.keys()
	list := &identity.SigningKeyList{Items: []identity.SigningKey{}}
	list.ResourceVersion = versionOf(revision)
	for _, key := range all {
		if selects(options, key) {
			list.Items = append(list.Items, *key)
		}
	}
	return list, nil
}

// selects reports whether the selectors of the options select a key.
func selects(options *internalversion.ListOptions, key *identity.SigningKey) bool {
	if options.LabelSelector != nil && !options.LabelSelector.Matches(labels.Set{}) {
		return false
	}
	return options.FieldSelector == nil || options.FieldSelector.Matches(fields.Set{"metadata.name": key.Name, "metadata.namespace": ""})
}

// Create implements rest.Creater: it publishes a new key. A dry run returns the object without a name, since it makes no key.
func (r *REST) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	asked, ok := obj.(*identity.SigningKey)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a SigningKey: %T", obj))
	}
	if faults := validateNew(asked); len(faults) > 0 {
		return nil, apierrors.NewInvalid(identity.SchemeGroupVersion.WithKind("SigningKey").GroupKind(), asked.Name, faults)
	}
	if validate != nil {
		if err := validate(ctx, asked.DeepCopy()); err != nil {
			return nil, err
		}
	}
	if r.Keyring == nil {
		return nil, inFiles("")
	}
	policy, dry := r.Keyring.Policy(), options != nil && dryrun.IsDryRun(options.DryRun)
	var made rotation.Key
	_, err := r.Keyring.Change(ctx, func(ring rotation.Ring) (next rotation.Ring, err error) {
		next, made, err = policy.Publish(ring, signingkey.Algorithm(asked.Spec.Algorithm), r.Clock.Now())
		if err == nil && dry {
			err = errDry
		}
		return next, err
	})
	none := int64(0)
	switch {
	case errors.Is(err, errDry):
		shown := object(&made, policy, 0, &none)
		shown.Name, shown.UID, shown.ResourceVersion = "", "", ""
		return shown, nil
	case errors.Is(err, rotation.ErrPublished):
		return nil, apierrors.NewConflict(resource, made.ID, fmt.Errorf("the key is already published, and signs from %s",
			policy.SignsFrom(made).Format(time.RFC3339)))
	case err != nil:
		return nil, r.refusal("", err)
	}
	_, revision := r.Keyring.Ring()
	return object(&made, policy, revision, &none), nil
}

// errDry ends a change that must not be stored.
var errDry = errors.New("dry run")

// validateNew returns the faults of an object that requests a key.
func validateNew(k *identity.SigningKey) field.ErrorList {
	var faults field.ErrorList
	for _, name := range []string{"name", "generateName"} {
		if value := map[string]string{"name": k.Name, "generateName": k.GenerateName}[name]; value != "" {
			faults = append(faults, field.Forbidden(field.NewPath("metadata", name), "the authority names a key by its ID"))
		}
	}
	if a := signingkey.Algorithm(k.Spec.Algorithm); a != "" && !slices.Contains(signingkey.Algorithms(), a) {
		faults = append(faults, field.NotSupported(field.NewPath("spec", "algorithm"), a, signingkey.Algorithms()))
	}
	return faults
}

// Delete implements rest.GracefulDeleter: it revokes a key. If the key signs, a new one signs when Delete returns.
func (r *REST) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	if err := r.settle(ctx, ""); err != nil {
		return nil, false, err
	}
	key, err := r.find(name)
	if err != nil {
		return nil, false, err
	}
	if options == nil {
		options = &metav1.DeleteOptions{}
	}
	if err := registry.CheckPreconditions(resource, key.Name, key.UID, key.ResourceVersion, options.Preconditions); err != nil {
		return nil, false, err
	}
	if validate != nil {
		if err := validate(ctx, key); err != nil {
			return nil, false, err
		}
	}
	if r.Keyring == nil {
		return nil, false, inFiles(name)
	}
	if dryrun.IsDryRun(options.DryRun) {
		return registry.Deleted(resource, name, key.UID), true, nil
	}
	_, err = r.Keyring.Change(ctx, func(ring rotation.Ring) (rotation.Ring, error) {
		next, _, err := r.Keyring.Policy().Revoke(ring, name, r.Clock.Now())
		return next, err
	})
	if err != nil {
		return nil, false, r.refusal(name, err)
	}
	return registry.Deleted(resource, name, key.UID), true, nil
}

// refusal returns the error of a change that was not made.
func (r *REST) refusal(name string, err error) error {
	switch {
	case errors.Is(err, rotation.ErrNotFound):
		return apierrors.NewNotFound(resource, name)
	case errors.Is(err, rotation.ErrFull):
		return apierrors.NewConflict(resource, name, err)
	case errors.Is(err, rotation.ErrUnreadable):
		return apierrors.NewInternalError(err)
	}
	return outage.New(err)
}

// inFiles returns the error of a change of keys that are in files.
func inFiles(name string) error {
	return apierrors.NewConflict(resource, name, errors.New("the signing keys are in files of the server: change the files instead"))
}
