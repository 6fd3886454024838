// Package openapi holds the generated OpenAPI definitions of the kinds the authority serves, and nothing else.
package openapi

//go:generate go tool -modfile=../../../hack/tools/go.mod openapi-gen --output-dir . --output-pkg lanyard.dev/internal/apiserver/openapi --output-file zz_generated.openapi.go --go-header-file ../../../hack/boilerplate.txt --report-filename /dev/null k8s.io/api/core/v1 k8s.io/api/authentication/v1 k8s.io/api/authorization/v1 k8s.io/api/certificates/v1 k8s.io/api/coordination/v1 k8s.io/api/events/v1 k8s.io/api/policy/v1 k8s.io/api/rbac/v1 lanyard.dev/apis/identity/v1alpha1 k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/util/intstr
