#!/bin/bash
# The suite `boot`: says something as soon as nginx answers, and tells the kernel's name.

nginx
until answer=$(exec 3<> /dev/tcp/127.0.0.1/80 && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && head -n 1 <&3) 2> /dev/null; do
    sleep 0.02
done
case $answer in
    *' 200 '*) /measure counter 'TSC at nginx' ;;
    *) echo "nginx: $answer" >&2; exit 1 ;;
esac
nginx -s stop
