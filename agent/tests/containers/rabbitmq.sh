#!/bin/sh
# Starts Debian's RabbitMQ as the public image starts its own: with the user that the variables name.
set -e
cat >/etc/rabbitmq/rabbitmq.conf <<END
default_user = $RABBITMQ_DEFAULT_USER
default_pass = $RABBITMQ_DEFAULT_PASS
loopback_users = none
END
chown -R rabbitmq /var/lib/rabbitmq /etc/rabbitmq
exec /usr/sbin/rabbitmq-server
