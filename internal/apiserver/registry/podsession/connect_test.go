package podsession

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"lanyard.dev/internal/apiserver/nodeclient"
)

func TestChooseContainer(t *testing.T) {
	t.Parallel()
	spec := func(init, names, ephemeral string) corev1.PodSpec {
		var s corev1.PodSpec
		for _, name := range strings.Fields(init) {
			s.InitContainers = append(s.InitContainers, corev1.Container{Name: name})
		}
		for _, name := range strings.Fields(names) {
			s.Containers = append(s.Containers, corev1.Container{Name: name})
		}
		for _, name := range strings.Fields(ephemeral) {
			s.EphemeralContainers = append(s.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name}})
		}
		return s
	}
	for name, test := range map[string]struct {
		spec            corev1.PodSpec
		annotated, asks string
		want, fault     string
	}{
		"the only one":              {spec("i", "a", "e"), "", "", "a", ""},
		"named":                     {spec("i", "a b", "e"), "", "b", "b", ""},
		"init":                      {spec("i", "a b", "e"), "", "i", "i", ""},
		"ephemeral":                 {spec("i", "a b", "e"), "", "e", "e", ""},
		"named beside the default":  {spec("", "a b", ""), "a", "b", "b", ""},
		"default":                   {spec("", "a b", ""), "b", "", "b", ""},
		"default that is not there": {spec("", "a b", ""), "c", "", "", "a container name must be specified for pod p, choose one of: [a b]"},
		"which":                     {spec("i", "a b", "e"), "", "", "", "a container name must be specified for pod p, choose one of: [i a b e]"},
		"not there":                 {spec("", "a", ""), "", "c", "", "container c is not valid for pod p"},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{defaultContainerAnnotation: test.annotated}}, Spec: test.spec}
		got, err := chooseContainer(pod, test.asks)
		if got != test.want || (err == nil) != (test.fault == "") || err != nil && (!apierrors.IsBadRequest(err) || err.Error() != test.fault) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

// onePod is a store of pods that holds one.
type onePod struct{ pod *corev1.Pod }

func (o onePod) Get(context.Context, string, *metav1.GetOptions) (runtime.Object, error) {
	return o.pod, nil
}

// noNodes fails each connection.
type noNodes struct{}

var errConnected = errors.New("connected")

func (noNodes) Connect(context.Context, string) (*nodeclient.Connection, error) {
	return nil, errConnected
}

// TestConnectRequiresCreate connects with a GET request that was already allowed.
func TestConnectRequiresCreate(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}}}
	for name, test := range map[string]struct {
		decision authorizer.Decision
		err      error
		passes   bool
	}{
		"allowed":    {authorizer.DecisionAllow, nil, true},
		"no opinion": {authorizer.DecisionNoOpinion, nil, false},
		"denied":     {authorizer.DecisionDeny, nil, false},
		"unknown":    {authorizer.DecisionNoOpinion, errors.New("stale"), false},
	} {
		for subresource, make := range map[string]func(az authorizer.UnconditionalAuthorizer) *ConnectREST{
			"exec": func(az authorizer.UnconditionalAuthorizer) *ConnectREST {
				return NewExecREST(onePod{pod}, noNodes{}, az)
			},
			"attach": func(az authorizer.UnconditionalAuthorizer) *ConnectREST {
				return NewAttachREST(onePod{pod}, noNodes{}, az)
			},
			"portforward": func(az authorizer.UnconditionalAuthorizer) *ConnectREST {
				return NewPortForwardREST(onePod{pod}, noNodes{}, az)
			},
		} {
			var attributes authorizer.Attributes
			r := make(authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				attributes = a
				return test.decision, "", test.err
			}))
			ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: "jane"})
			ctx = request.WithRequestInfo(ctx, &request.RequestInfo{
				IsResourceRequest: true, Verb: "get", APIVersion: "v1", Resource: "pods", Subresource: subresource, Namespace: "ns", Name: "p",
			})
			options, _, _ := r.NewConnectOptions()
			_, err := r.Connect(ctx, "p", options, nil)
			if errors.Is(err, errConnected) != test.passes {
				t.Errorf("%s, %s: %v", name, subresource, err)
			}
			if test.err == nil && !test.passes && !apierrors.IsForbidden(err) {
				t.Errorf("%s, %s: %v is not forbidden", name, subresource, err)
			}
			if attributes.GetVerb() != "create" || attributes.GetSubresource() != subresource || attributes.GetNamespace() != "ns" || attributes.GetName() != "p" || attributes.GetUser().GetName() != "jane" {
				t.Errorf("%s, %s: authorized %+v", name, subresource, attributes)
			}
		}
	}
}

// TestNodeLearnsNothingOfTheCaller checks that only the headers of the change of protocols reach the node.
func TestNodeLearnsNothingOfTheCaller(t *testing.T) {
	t.Parallel()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Authorization", "Cookie", "Impersonate-User", "X-Remote-User", "Origin", "Connection", "Upgrade", "Sec-WebSocket-Key"} {
		r.Header.Set(name, "value")
	}
	r.Header.Set("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel.k8s.io,v4.channel.k8s.io")
	onlyUpgradeHeaders(http.HandlerFunc(func(_ http.ResponseWriter, got *http.Request) {
		if protocols := got.Header.Get("Sec-WebSocket-Protocol"); protocols != " v5.channel.k8s.io,v4.channel.k8s.io" {
			t.Errorf("passed on %q, which may hold a token", protocols)
		}
		if len(got.Header) != 4 || got.Header.Get("Upgrade") == "" || got.Header.Get("Connection") == "" || got.Header.Get("Sec-WebSocket-Key") == "" {
			t.Errorf("passed on: %v", got.Header)
		}
	})).ServeHTTP(nil, r)
	if len(r.Header) != 9 {
		t.Errorf("the request itself was changed: %v", r.Header)
	}
}
