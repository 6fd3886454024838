package registry

import (
	"errors"

	"google.golang.org/grpc/codes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// tooLarge says that an object exceeds what etcd takes in one request. The library answers etcd's refusal as a fault of
// the server; it is the client's.
func tooLarge(err error) error {
	// etcd's client gives its errors a gRPC code. Of all it calls an invalid argument, only the size is in the hands of
	// whoever writes an object.
	var refusal interface {
		error
		Code() codes.Code
	}
	if errors.As(err, &refusal) && refusal.Code() == codes.InvalidArgument {
		return apierrors.NewRequestEntityTooLargeError("the object is too large to be stored: " + refusal.Error())
	}
	return err
}
