#!/usr/bin/env escript
%% What Erlang's run-time asks of a kernel, a part at a time: `escript erlang.escript PART`. Status 0 if all is well.
%%! +S 2:2 +A 4

main([Part]) ->
    Parts = #{
        "ring" => fun ring/0, "timers" => fun timers/0, "ports" => fun ports/0, "tcp" => fun tcp/0,
        "unix" => fun unix/0, "files" => fun files/0, "preemption" => fun preemption/0
    },
    try (maps:get(Part, Parts))() of
        ok -> halt(0)
    catch
        Class:Reason:Stack ->
            io:format("~p ~p~n~p~n", [Class, Reason, Stack]),
            halt(1)
    end.

%% A message goes round a ring of processes, which run on two schedulers.
ring() ->
    Me = self(),
    First = lists:foldl(fun(_, Next) -> spawn(fun() -> pass(Next) end) end, Me, lists:seq(1, 500)),
    lists:foreach(
        fun(Round) ->
            First ! Round,
            receive Round -> ok after 30000 -> exit(lost) end
        end, lists:seq(1, 50)).

pass(Next) ->
    receive Message -> Next ! Message end,
    pass(Next).

%% Timers fire neither early nor out of order.
timers() ->
    Start = erlang:monotonic_time(millisecond),
    [erlang:send_after(Delay, self(), Delay) || Delay <- [80, 20, 60, 40]],
    [20, 40, 60, 80] = [receive Delay -> Delay after 30000 -> exit(lost) end || _ <- lists:seq(1, 4)],
    true = erlang:monotonic_time(millisecond) - Start >= 80,
    ok.

%% Programs as ports: what they say, and how they end.
ports() ->
    Port = open_port({spawn, "/bin/sh -c 'read line; echo got $line; exit 3'"}, [exit_status, {line, 100}]),
    true = port_command(Port, "words\n"),
    receive {Port, {data, {eol, "got words"}}} -> ok after 30000 -> exit(silent) end,
    receive {Port, {exit_status, 3}} -> ok after 30000 -> exit(lost) end,
    [ok = check_true(os:cmd("echo " ++ integer_to_list(N)), integer_to_list(N) ++ "\n") || N <- lists:seq(1, 20)],
    ok.

check_true(Same, Same) -> ok.

%% Many connections at once, found ready by epoll.
tcp() -> echo(inet, {127, 0, 0, 1}, 0).
unix() -> echo(local, {local, "/tmp/erlang.socket"}, {local, "/tmp/erlang.socket"}).

echo(Family, Address, Where) ->
    {Bind, At} = case Where of {local, _} -> {[{ifaddr, Where}], 0}; Number -> {[{ip, Address}], Number} end,
    {ok, Listener} = gen_tcp:listen(At, [Family, binary, {active, false}, {backlog, 64} | Bind]),
    Port = case Family of local -> 0; _ -> {ok, Given} = inet:port(Listener), Given end,
    Server = spawn_link(fun() -> accept(Listener) end),
    Me = self(),
    Clients = [spawn_link(fun() -> Me ! {self(), client(Family, Address, Port, N)} end) || N <- lists:seq(1, 40)],
    [receive {Client, Result} -> ok = Result after 60000 -> exit(lost) end || Client <- Clients],
    unlink(Server),
    gen_tcp:close(Listener).

accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Pid = spawn(fun() -> receive go -> answer(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    accept(Listener).

answer(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Data} -> ok = gen_tcp:send(Socket, Data), answer(Socket);
        {error, closed} -> ok
    end.

client(Family, Address, Port, N) ->
    {ok, Socket} = gen_tcp:connect(Address, Port, [Family, binary, {active, false}]),
    Data = binary:copy(<<N>>, 20000),
    ok = gen_tcp:send(Socket, Data),
    {ok, Data} = gen_tcp:recv(Socket, byte_size(Data), 60000),
    gen_tcp:close(Socket).

%% Files by way of the asynchronous threads.
files() ->
    Name = "/tmp/erlang.file",
    Data = crypto_free_bytes(200000),
    Me = self(),
    [spawn_link(fun() ->
        File = Name ++ integer_to_list(N),
        ok = file:write_file(File, Data),
        {ok, Data} = file:read_file(File),
        ok = file:delete(File),
        Me ! done
     end) || N <- lists:seq(1, 8)],
    [receive done -> ok after 60000 -> exit(lost) end || _ <- lists:seq(1, 8)],
    ok.

crypto_free_bytes(Count) -> << <<(N rem 251)>> || N <- lists:seq(1, Count) >>.

%% A process that computes keeps nobody else from running.
preemption() ->
    Busy = [spawn(fun() -> spin(0) end) || _ <- lists:seq(1, 4)],
    timer:sleep(50),
    ok = timers(),
    [exit(Pid, kill) || Pid <- Busy],
    ok.

spin(N) -> spin(N + 1).
