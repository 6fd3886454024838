package serviceaccount

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/utils/ptr"
)

// accounts are the accounts of the namespace "ns".
type accounts map[string]*corev1.ServiceAccount

func (a accounts) find(_ context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	if name == "unlucky" {
		return nil, errors.New("etcd is away")
	}
	if found := a[name]; found != nil && namespace == "ns" {
		return found, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("serviceaccounts"), name)
}

func account(mutate ...func(*corev1.ServiceAccount)) accounts {
	robot := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "robot"}}
	for _, m := range mutate {
		m(robot)
	}
	return accounts{"robot": robot, "default": {ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "default"}}}
}

func pod(mutate ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
		Spec:       corev1.PodSpec{ServiceAccountName: "robot", Containers: []corev1.Container{{Name: "c"}}},
	}
	for _, m := range mutate {
		m(p)
	}
	return p
}

func attributes(p *corev1.Pod) admission.Attributes {
	return of(p, "pods", "")
}

func of(obj runtime.Object, resource, subresource string) admission.Attributes {
	return admission.NewAttributesRecord(obj, nil, corev1.SchemeGroupVersion.WithKind("Pod"), "ns", "p",
		corev1.SchemeGroupVersion.WithResource(resource), subresource, admission.Create, &metav1.CreateOptions{}, false, &user.DefaultInfo{})
}

// admit runs the plugin as the server does: it may change the pod, then it validates the result.
func admit(ctx context.Context, known accounts, p *corev1.Pod) error {
	plugin := New(known.find)
	n := 0
	plugin.randomly = func(prefix string) string { n++; return fmt.Sprintf("%s%05d", prefix, n) }
	if err := plugin.Admit(ctx, attributes(p), nil); err != nil {
		return err
	}
	return plugin.Validate(ctx, attributes(p), nil)
}

func mount(name string) corev1.VolumeMount {
	return corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}
}

func tokenAt(name string) corev1.Volume {
	mode := int32(0o644)
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: ptr.To[int64](3607), Path: "token"}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
		},
	}}}
}

// TestAdmit compares whole specs, because admission must not change other fields.
func TestAdmit(t *testing.T) {
	t.Parallel()
	const volume = "kube-api-access-00001"
	no, yes := func(a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = ptr.To(false) }, func(a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = ptr.To(true) }
	podSays := func(automount bool) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = &automount }
	}
	named := func(p *corev1.Pod) { p.Spec.DeprecatedServiceAccount = "robot" }
	mounted := func(p *corev1.Pod) {
		named(p)
		p.Spec.Volumes = append(p.Spec.Volumes, tokenAt(volume))
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, mount(volume))
	}
	for _, test := range []struct {
		name  string
		known accounts
		pod   func(*corev1.Pod)
		want  []func(*corev1.Pod)
	}{
		{"token mounted", account(), func(*corev1.Pod) {}, []func(*corev1.Pod){mounted}},
		{"default account", account(), func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }, []func(*corev1.Pod){mounted, func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.DeprecatedServiceAccount = "default", "default"
		}}},
		{"other volumes and mounts stay", account(), func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "data"}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/var/run/secrets"}}
		}, []func(*corev1.Pod){mounted}},
		{"init containers", account(), func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "i"}} }, []func(*corev1.Pod){mounted, func(p *corev1.Pod) {
			p.Spec.InitContainers[0].VolumeMounts = []corev1.VolumeMount{mount(volume)}
		}}},
		{"own mount at the path", account(), func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "own", VolumeMounts: []corev1.VolumeMount{{Name: "mine", MountPath: mountPath}}})
		}, []func(*corev1.Pod){mounted}},
		{"own mount at the path in all containers", account(), func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "mine", MountPath: mountPath}}
		}, []func(*corev1.Pod){named}},
		{"own token volume", account(), func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access-mine"}} }, []func(*corev1.Pod){named, func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{mount("kube-api-access-mine")}
		}}},
		{"account sets false", account(no), func(*corev1.Pod) {}, []func(*corev1.Pod){named}},
		{"account sets true", account(yes), func(*corev1.Pod) {}, []func(*corev1.Pod){mounted}},
		{"pod sets false", account(), podSays(false), []func(*corev1.Pod){named}},
		{"pod sets true, account false", account(no), podSays(true), []func(*corev1.Pod){mounted}},
		{"pod sets false, account true", account(yes), podSays(false), []func(*corev1.Pod){named}},
		{"pull secrets copied", account(no, func(a *corev1.ServiceAccount) { a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}} }), func(*corev1.Pod) {},
			[]func(*corev1.Pod){named, func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}} }}},
		{"own pull secrets kept", account(no, func(a *corev1.ServiceAccount) { a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}} }), func(p *corev1.Pod) {
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "mine"}}
		}, []func(*corev1.Pod){named}},
		{"mirror pod", accounts{}, func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Annotations = "", map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, want := pod(test.pod), pod(append([]func(*corev1.Pod){test.pod}, test.want...)...)
			if err := admit(t.Context(), test.known, got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			again := got.DeepCopy()
			if err := admit(t.Context(), test.known, again); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("admission of what was admitted changes it (-first +second):\n%s", diff)
			}
		})
	}
}

func TestPullSecretsAreCopies(t *testing.T) {
	t.Parallel()
	known := account(func(a *corev1.ServiceAccount) { a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}} })
	p := pod()
	if err := admit(t.Context(), known, p); err != nil {
		t.Fatal(err)
	}
	p.Spec.ImagePullSecrets[0].Name = "changed"
	if known["robot"].ImagePullSecrets[0].Name != "s" {
		t.Error("a pod's pull secrets are the account's own")
	}
}

func TestVolumeNameIsFree(t *testing.T) {
	t.Parallel()
	plugin := New(account().find)
	names := []string{"taken", "free"}
	plugin.randomly = func(string) string { name := names[0]; names = names[1:]; return name }
	p := pod(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "taken"}} })
	if err := plugin.Admit(t.Context(), attributes(p), nil); err != nil {
		t.Fatal(err)
	}
	if got := p.Spec.Containers[0].VolumeMounts[0].Name; got != "free" {
		t.Errorf("mounts %q", got)
	}
	if name := New(nil).randomly("kube-api-access-"); len(name) != len("kube-api-access-xxxxx") {
		t.Errorf("name %q", name)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	enforcing := func(value string) accounts {
		return account(func(a *corev1.ServiceAccount) {
			a.Annotations = map[string]string{"kubernetes.io/enforce-mountable-secrets": value}
			a.Secrets = []corev1.ObjectReference{{Name: "listed"}}
			a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		})
	}
	env := func(name string) corev1.Container {
		return corev1.Container{Name: "e", Env: []corev1.EnvVar{{Name: "A"}, {Name: "B", ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}}}
	}
	envFrom := func(name string) corev1.Container {
		return corev1.Container{Name: "e", EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{}}, {
			SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}}
	}
	add := func(c corev1.Container) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, c) }
	}
	pull := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: name}} }
	}
	holding := func(source corev1.VolumeSource) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v", VolumeSource: source})
		}
	}
	secret := func(name string) corev1.VolumeSource {
		return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}
	}
	projecting := func(source corev1.VolumeProjection) corev1.VolumeSource {
		return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{source}}}
	}
	mirror := func(p *corev1.Pod) {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: ""}
		p.Spec.ServiceAccountName = ""
	}
	type edits = []func(*corev1.Pod)
	unlisted := `secret "unlisted" is not in the secrets list of service account "robot", which enforces mountable secrets`
	tests := []struct {
		name  string
		known accounts
		pod   edits
		want  string // "" admits
	}{
		{"missing account", account(), edits{func(p *corev1.Pod) { p.Spec.ServiceAccountName = "nobody" }},
			`pods "p" is forbidden: error looking up service account ns/nobody: serviceaccount "nobody" not found`},
		{"missing default account", accounts{}, edits{func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }},
			`pods "p" is forbidden: error looking up service account ns/default: serviceaccount "default" not found`},
		{"lookup failed", account(), edits{func(p *corev1.Pod) { p.Spec.ServiceAccountName = "unlucky" }},
			`Internal error occurred: look up service account ns/unlucky: etcd is away`},
		{"mirror pod with account", account(), edits{mirror, func(p *corev1.Pod) { p.Spec.ServiceAccountName = "robot" }}, "a mirror pod may not reference service accounts"},
		{"mirror pod with token volume", account(), edits{mirror, holding(tokenAt("x").VolumeSource)}, "a mirror pod may not use ServiceAccountToken volume projections"},
		{"mirror pod with a token alone", account(), edits{mirror, holding(projecting(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}))},
			"a mirror pod may not use ServiceAccountToken volume projections"},
		{"mirror pod with a config map", account(), edits{mirror, holding(projecting(corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{}}))}, ""},
		{"mirror pod with pull secret", account(), edits{mirror, pull("x")}, "a mirror pod may not reference secrets"},
		{"mirror pod with secret variable", account(), edits{mirror, add(env("x"))}, "a mirror pod may not reference secrets"},
		{"listed volume", enforcing("true"), edits{holding(secret("listed"))}, ""},
		{"unlisted volume", enforcing("true"), edits{holding(secret("unlisted"))}, unlisted},
		{"unlisted volume, nothing enforced", enforcing("false"), edits{holding(secret("unlisted"))}, ""},
		{"unlisted volume, nonsense enforced", enforcing("yes"), edits{holding(secret("unlisted"))}, ""},
		{"unlisted volume, other spelling of true", enforcing("T"), edits{holding(secret("unlisted"))}, unlisted},
		{"unlisted projection", enforcing("true"), edits{holding(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "unlisted"}}}}}})}, unlisted},
		{"listed variable", enforcing("true"), edits{add(env("listed"))}, ""},
		{"unlisted variable", enforcing("true"), edits{add(env("unlisted"))}, unlisted},
		{"unlisted variables", enforcing("true"), edits{add(envFrom("unlisted"))}, unlisted},
		{"unlisted variable in an init container", enforcing("true"), edits{func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{env("unlisted")} }}, unlisted},
		{"listed pull secret", enforcing("true"), edits{pull("pull")}, ""},
		{"the account's own pull secret", enforcing("true"), nil, ""},
		{"unlisted pull secret", enforcing("true"), edits{pull("listed")},
			`imagePullSecrets[0].name="listed" is not in the imagePullSecrets list of service account "robot", which enforces mountable secrets`},
	}
	for name, source := range secretSources("unlisted") {
		tests = append(tests, struct {
			name  string
			known accounts
			pod   edits
			want  string
		}{"mirror pod with volume " + name, account(), edits{mirror, holding(source)}, "a mirror pod may not reference secrets"})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := admit(t.Context(), test.known, pod(test.pod...))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.HasSuffix(err.Error(), test.want)) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsInternalError(err) {
				t.Errorf("the refusal is no API error: %#v", err)
			}
		})
	}
}

// TestEachPhaseLooksForTheAccount checks that admission and validation both look up the account, because other plugins may change
// the pod between them.
func TestEachPhaseLooksForTheAccount(t *testing.T) {
	t.Parallel()
	p := pod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "nobody" })
	if err := New(account().find).Admit(t.Context(), attributes(p), nil); !apierrors.IsForbidden(err) {
		t.Errorf("Admit = %v", err)
	}
	if err := New(account().find).Validate(t.Context(), attributes(p), nil); !apierrors.IsForbidden(err) {
		t.Errorf("Validate = %v", err)
	}
}

// secretSources returns a volume of each type that refers to a secret.
func secretSources(name string) map[string]corev1.VolumeSource {
	ref := &corev1.LocalObjectReference{Name: name}
	return map[string]corev1.VolumeSource{
		"secret":     {Secret: &corev1.SecretVolumeSource{SecretName: name}},
		"projected":  {Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: *ref}}}}},
		"azureFile":  {AzureFile: &corev1.AzureFileVolumeSource{SecretName: name}},
		"cephfs":     {CephFS: &corev1.CephFSVolumeSource{SecretRef: ref}},
		"cinder":     {Cinder: &corev1.CinderVolumeSource{SecretRef: ref}},
		"csi":        {CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: ref}},
		"flexVolume": {FlexVolume: &corev1.FlexVolumeSource{SecretRef: ref}},
		"iscsi":      {ISCSI: &corev1.ISCSIVolumeSource{SecretRef: ref}},
		"rbd":        {RBD: &corev1.RBDVolumeSource{SecretRef: ref}},
		"scaleIO":    {ScaleIO: &corev1.ScaleIOVolumeSource{SecretRef: ref}},
		"storageos":  {StorageOS: &corev1.StorageOSVolumeSource{SecretRef: ref}},
	}
}

func TestOtherRequestsAreIgnored(t *testing.T) {
	t.Parallel()
	plugin := New(accounts{}.find) // no account exists
	for name, a := range map[string]admission.Attributes{
		"status":           of(pod(), "pods", "status"),
		"binding":          of(&corev1.Binding{}, "pods", "binding"),
		"another resource": of(&corev1.ConfigMap{}, "configmaps", ""),
	} {
		if err := errors.Join(plugin.Admit(t.Context(), a, nil), plugin.Validate(t.Context(), a, nil)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if plugin.Handles(admission.Update) || plugin.Handles(admission.Delete) || !plugin.Handles(admission.Create) {
		t.Error("the plugin is for creation")
	}
}

// advice records warnings.
type advice []string

func (a *advice) AddWarning(_, text string) { *a = append(*a, text) }

func TestDefaultAccountWarning(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		pod  func(*corev1.Pod)
		want string
	}{
		{"robot", func(*corev1.Pod) {}, ""},
		{"default by name", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "default" }, `pod "p" uses`},
		{"default by silence", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }, `pod "p" uses`},
		{"pod without a name yet", func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Name, p.GenerateName = "", "", "web-" }, `pod "web-" uses`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var got advice
			if err := admit(warning.WithWarningRecorder(t.Context(), &got), account(), pod(test.pod)); err != nil {
				t.Fatal(err)
			}
			if test.want == "" && len(got) > 0 || test.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], test.want)) {
				t.Fatalf("warnings %q, want %q", got, test.want)
			}
			if test.want != "" && !strings.Contains(got[0], "kubectl create serviceaccount NAME -n ns") {
				t.Errorf("%q does not contain the command to run", got[0])
			}
		})
	}
}
